"""A digital mouse with known truth: anatomy, camera, whole studies."""

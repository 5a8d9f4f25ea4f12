"""One vesicle kinetics under all labels: composition, data, fit, profiles, identifiability, prediction of what was left out."""

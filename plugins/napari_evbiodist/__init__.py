"""The napari plugin: scans, organ maps and sample data as layers. Importing it needs neither napari nor Qt."""

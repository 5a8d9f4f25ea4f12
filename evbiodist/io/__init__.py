"""Files in: a registry of readers, one file each. A reader returns a `Scan` or an `OrganTable`."""

"""From a source to checked rows in a folder; the only room that imports data_checks."""

"""Where clips come from: folders, a manifest, a download, tensorflow-datasets, the synthesiser."""

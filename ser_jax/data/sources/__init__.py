"""Where clips come from: folders, a manifest, a download, the synthesiser.

Read `listing` for what a source gives, `find` for which one it is, then one source.
"""

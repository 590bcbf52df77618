"""``rapida-media-ctl``: the operator's command line."""

"""The codecs of the media protocols."""

"""stasis"""

"""What every call store must do, by concern; ``tests/store/store_tests.py`` joins it into one class."""

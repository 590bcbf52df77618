"""One call, whatever carries it: the clock of all calls, the call, and the calls now up."""

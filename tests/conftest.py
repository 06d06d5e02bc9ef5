"""What holds for all tests."""

import signal

# Where the tests were started in the background, Ctrl-C is ignored and every child would inherit that: a test that
# sends Ctrl-C to one would then find it deaf.
signal.signal(signal.SIGINT, signal.default_int_handler)

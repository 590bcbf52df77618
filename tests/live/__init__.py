"""The live suite: the real program, as a process of its own, behind a real Asterisk (see ``script/asterisk``).

Everything under test is another process, so these tests block: each wait has its own deadline, and none needs the
reactor. All traffic stays on the loopback interface, on ports of this process's own (``benchmarks/harness/ports.py``).
"""

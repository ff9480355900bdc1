"""Entry script: `python -I -S __main__.py <attempt folder>` supervises one attempt.

With `--serve` it forks a supervisor for each folder named on the socket that is its stdin, so that
no attempt pays for the start of an interpreter and its imports. `--warm <descriptor> <module>...`
is a warm process of an environment's Python, with these modules loaded (`stellwerk_shim.warm`);
`--begin-walled <descriptor>` begins one, as `--warm-walled`, behind walls, `--apart <command>...`
one, as `--warm-apart`, outside whose file its runs cannot change (`stellwerk_shim.apart`).
`--probe <cell> <descriptor>...` tells why runs cannot be walled in so; nothing if they can.
"""

import os
import sys

# Appended, not inserted: the parent may be a whole site-packages, which must not shadow the stdlib.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from stellwerk_shim import apart, began, warm
from stellwerk_shim.cell import probe
from stellwerk_shim.nursery import serve
from stellwerk_shim.supervisor import supervise

if __name__ == "__main__":
    status = 0
    how, arguments = sys.argv[1], sys.argv[2:]
    if how == "--serve":
        import socket  # not above: a script of its own would not have found it loaded

        serve(socket.socket(fileno=0))
    elif how == "--warm":
        warm.serve(int(arguments[0]), arguments[1:], began.WITH)
    elif how == "--warm-walled":
        warm.serve(int(arguments[0]), arguments[1:], began.WITH, walled=True)
    elif how == "--warm-apart":
        warm.serve(int(arguments[0]), arguments[1:], began.WITH, mounts=apart.back())
    elif how == "--apart":
        apart.become(arguments)
    elif how == "--begin-walled":
        warm.begin_in_a_cell(int(arguments[0]))
    elif how == "--probe":
        os.write(1, probe(arguments[0], [int(number) for number in arguments[1:]]).encode())
    else:
        status = supervise(how)
    # Everything is on disk by now; the interpreter's own teardown would only delay the executor.
    os._exit(status)

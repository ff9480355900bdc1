"""Entry script: `python -I -S __main__.py <attempt folder>` supervises one attempt.

With `--serve` it forks a supervisor for each folder named on the socket that is its stdin, so that
no attempt pays for the start of an interpreter and its imports. `--warm <descriptor> <module>...`
does the same on that descriptor in an environment's own Python, with these modules loaded;
`--apart <command>...` becomes one whose file its runs cannot change (`stellwerk_shim.apart`).
`--probe <cell> <descriptor>...` tells why runs cannot be walled in so; nothing if they can.
"""

import os
import sys

# Appended, not inserted: the parent may be a whole site-packages, which must not shadow the stdlib.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from stellwerk_shim import apart, began
from stellwerk_shim.cell import probe
from stellwerk_shim.nursery import serve, serve_warm
from stellwerk_shim.supervisor import supervise

if __name__ == "__main__":
    status = 0
    if sys.argv[1] == "--serve":
        serve(0)
    elif sys.argv[1] == "--warm":
        serve_warm(int(sys.argv[2]), sys.argv[3:], began.WITH)
    elif sys.argv[1] == "--apart":
        apart.become(sys.argv[2:])
    elif sys.argv[1] == "--warm-apart":
        serve_warm(int(sys.argv[2]), sys.argv[3:], began.WITH, apart.back())
    elif sys.argv[1] == "--probe":
        os.write(1, probe(sys.argv[2], [int(number) for number in sys.argv[3:]]).encode())
    else:
        status = supervise(sys.argv[1])
    # Everything is on disk by now; the interpreter's own teardown would only delay the executor.
    os._exit(status)

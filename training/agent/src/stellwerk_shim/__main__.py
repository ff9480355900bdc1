"""Entry script of the supervisor: `python -I -S __main__.py <attempt folder>`, or `-`.

With `-` it imports everything, then waits on stdin for one line with the attempt folder, so that
a run does not pay for the start of an interpreter. End of input before a line ends it: a spare
never outlives the executor that holds the other end.
"""

import os
import sys

# Appended, not inserted: the parent may be a whole site-packages, which must not shadow the stdlib.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from stellwerk_shim.supervisor import supervise

if __name__ == "__main__":
    folder = sys.argv[1]
    if folder == "-":
        folder = os.fsdecode(os.read(0, 8192).rstrip(b"\n"))
    status = supervise(folder) if folder else 0
    # Everything is on disk by now; the interpreter's own teardown would only delay the executor.
    os._exit(status)

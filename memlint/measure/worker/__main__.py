"""The worker's process: a job comes in, the target runs, an outcome goes out.

Started by `memlint.measure.launch` with three arguments: the descriptors to read the job from and to write the outcome
to, and a file for what Python writes when it crashes.
"""

import os
import sys

# The folder of this file holds `lines`, `steps`, `imports`: it is nobody's import path.
_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
sys.path[:] = [place for place in sys.path if place != _HERE]

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(_HERE)))  # noqa: PTH120
if _ROOT not in sys.path:
    # Last: memlint may run from a folder that holds other packages, too.
    sys.path.append(_ROOT)

from memlint.measure.worker.process import serve  # noqa: E402

serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])

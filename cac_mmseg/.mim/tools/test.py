"""mmseg's own tools/test.py, for `mim test cacnet-mmseg CONFIG`."""
import runpy
from pathlib import Path

import mmseg

script = Path(mmseg.__file__).parent / '.mim/tools/test.py'
runpy.run_path(str(script), run_name='__main__')

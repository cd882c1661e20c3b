"""mmseg's own tools/train.py, for `mim train cacnet-mmseg CONFIG`."""
import runpy
from pathlib import Path

import mmseg

script = Path(mmseg.__file__).parent / '.mim/tools/train.py'
runpy.run_path(str(script), run_name='__main__')

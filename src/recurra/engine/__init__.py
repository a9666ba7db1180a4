from recurra.engine.options import options
from recurra.engine.scan import scan

"""Options of the operations' routes: all need an operator's key."""

from api.route_options import operator_options

READ = operator_options("reads")
WRITE = operator_options("writes")
WRITE_BY_IDS = operator_options("writes", may_hold_ids=True)

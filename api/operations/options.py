"""Options of the operations' routes: all need the scope `admin`."""

from api.route_options import route_options
from infra.accounts.keys import ADMIN

READ = route_options(ADMIN, "reads")
WRITE = route_options(ADMIN, "writes")

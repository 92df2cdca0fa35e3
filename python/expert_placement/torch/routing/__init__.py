"""From the router's top-k ids to slots, counts and offsets. SPEC.md, "Routing".

`tables` makes what ids are routed through, and `call` is the entry; a `request` is what it makes of its arguments.
`reference` (plain torch), `rust` (the compiled core) and `launch` with its `kernels` (Triton) are three implementations
of one contract, and `operators` gives them to torch as one operator.
"""

from expert_placement.torch.routing.call import Routed, route, warm_up
from expert_placement.torch.routing.tables import RoutingTables

__all__ = ["Routed", "RoutingTables", "route", "warm_up"]

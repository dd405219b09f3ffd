"""The order of the stages. One file is one flow and one deployment; `python -m flows.<name>` runs it here and now."""

import tasks.machine.environment  # noqa: F401  first: Prefect reads its settings when it is imported
from tasks.machine.terminal import end_quietly_on_interrupt

end_quietly_on_interrupt()  # while the flow's libraries are imported, for seconds

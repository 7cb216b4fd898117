"""Plan rules, targets (GTV, CTV), margins, surfaces and recurrence coverage, on voxels in millimetres."""

from gliodil.planning.evaluate import evaluate_plan_folder
from gliodil.planning.plan import plan
from gliodil.planning.plans import Plans
from gliodil.planning.rules import PlanRule, get_rule

__all__ = ["PlanRule", "Plans", "evaluate_plan_folder", "get_rule", "plan"]

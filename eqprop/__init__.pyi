"""The public names, in the order in which the theory introduces them: the one list of them.

``from .x import Y as Y`` is how a stub exports a name.
"""

from .data.dataset import Dataset as Dataset
from .data.named import load as load
from .data.paths import load_path as load_path
from .data.targets import Classes as Classes
from .data.targets import Labels as Labels
from .data.targets import Real as Real
from .devices.presets import load_device as load_device
from .devices.record import Device as Device
from .dynamics.activations import ACTIVATIONS as ACTIVATIONS
from .dynamics.activations import activation as activation
from .dynamics.anderson import Anderson as Anderson
from .dynamics.costs import Cost as Cost
from .dynamics.costs import CrossEntropy as CrossEntropy
from .dynamics.costs import SquaredError as SquaredError
from .dynamics.nudges import (
    Centered as Centered,
)
from .dynamics.nudges import (
    Holomorphic as Holomorphic,
)
from .dynamics.nudges import (
    MixedSign as MixedSign,
)
from .dynamics.nudges import (
    Nudge as Nudge,
)
from .dynamics.nudges import (
    OneSided as OneSided,
)
from .dynamics.nudges import (
    RandomSign as RandomSign,
)
from .dynamics.nudges import (
    Stencil as Stencil,
)
from .dynamics.relaxation import (
    FixedSteps as FixedSteps,
)
from .dynamics.relaxation import (
    Relaxation as Relaxation,
)
from .dynamics.relaxation import (
    ToTolerance as ToTolerance,
)
from .dynamics.step import (
    BlockDescent as BlockDescent,
)
from .dynamics.step import (
    Dynamics as Dynamics,
)
from .dynamics.step import (
    EnergyBased as EnergyBased,
)
from .dynamics.step import (
    Prototypical as Prototypical,
)
from .dynamics.step import (
    dynamics_of as dynamics_of,
)
from .dynamics.system import Free as Free
from .dynamics.system import System as System
from .errors import EqpropError as EqpropError
from .learning.asymmetric import AsymmetricEP as AsymmetricEP
from .learning.asymmetric import ContinualAsymmetricEP as ContinualAsymmetricEP
from .learning.baselines import BPTT as BPTT
from .learning.baselines import RecurrentBackprop as RecurrentBackprop
from .learning.continual import continual_phase as continual_phase
from .learning.continual import continual_step as continual_step
from .learning.increments import (
    Equilibrium as Equilibrium,
)
from .learning.increments import (
    Increment as Increment,
)
from .learning.increments import (
    VectorField as VectorField,
)
from .learning.learners import (
    Continual as Continual,
)
from .learning.learners import (
    Learner as Learner,
)
from .learning.learners import (
    WithOptimizer as WithOptimizer,
)
from .learning.rules import AfterPhase as AfterPhase
from .learning.rules import Rule as Rule
from .networks.connections import Connection as Connection
from .networks.connections import Dense as Dense
from .networks.connections import Lateral as Lateral
from .networks.convolution import (
    AveragePool as AveragePool,
)
from .networks.convolution import (
    Conv as Conv,
)
from .networks.convolution import (
    MaxPool as MaxPool,
)
from .networks.convolution import (
    NoPool as NoPool,
)
from .networks.convolution import (
    conv as conv,
)
from .networks.convolution import (
    conv_shape as conv_shape,
)
from .networks.convolution import (
    shortcut as shortcut,
)
from .networks.edges import Edge as Edge
from .networks.edges import OneWay as OneWay
from .networks.edges import Tied as Tied
from .networks.edges import Untied as Untied
from .networks.edges import untied as untied
from .networks.energy import Energy as Energy
from .networks.energy import Map as Map
from .networks.graphs import chain as chain
from .networks.graphs import graph as graph
from .networks.network import Network as Network
from .networks.resistive import ResistiveNetwork as ResistiveNetwork
from .recipes.build import Built as Built
from .recipes.build import build as build
from .recipes.catalogue import RECIPES as RECIPES
from .recipes.catalogue import recipe as recipe
from .recipes.recipe import Recipe as Recipe
from .theorem.curves import Problem as Problem
from .theorem.verification import Plan as Plan
from .theorem.verification import verify as verify
from .training.trained_run import TrainedRun as TrainedRun
from .training.trained_run import fit as fit
from .training.trained_run import open_run as open_run
from .training.trainer import Examples as Examples
from .training.trainer import Trainer as Trainer
from .training.trainer import TrainState as TrainState

__version__: str

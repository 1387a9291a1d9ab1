from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import OmegaConf
from pydantic import TypeAdapter
from torch import nn

CONF = Path(__file__).parents[2] / "conf"
ARCHITECTURES = sorted(path.stem for path in (CONF / "architecture").glob("*.yaml"))
UNCONDITIONAL = {"peer_gan", "peer_dcgan"}  # PyTorch-GAN's, which take no labels
WITH_CLASSES = [(name, count) for name in ARCHITECTURES for count in (0, 3) if not (count and name in UNCONDITIONAL)]


class Networks(NamedTuple):
    generator: Any
    discriminator: Any
    latent_dim: int


def networks(
    name: str,
    shape: tuple[int, ...],
    num_classes: int = 0,
    value_range: tuple[float, float] | None = (0.0, 1.0),
    generator: dict[str, Any] | None = None,
    discriminator: dict[str, Any] | None = None,
) -> Networks:
    """The networks of conf/architecture/NAME.yaml for such data, with some of their keys replaced."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose(f"architecture/{name}").architecture)
    latent_dim = node["latent"]["dim"]
    facts = {"latent_dim": latent_dim, "shape": shape, "num_classes": num_classes, "value_range": value_range}
    return Networks(
        build({**node["generator"], **(generator or {})}, **facts),
        build({**node["discriminator"], **(discriminator or {})}, **facts),
        latent_dim,
    )


def build(node: dict[str, Any], **facts: object) -> Any:
    cls: Any = get_class(node.pop("_target_"))
    hints = get_type_hints(cls.__init__, include_extras=True)
    keys = {name: TypeAdapter(hints[name]).validate_python(value) for name, value in node.items()}
    return cls(**keys, **{name: fact for name, fact in facts.items() if name in hints})


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def layers(network: nn.Module) -> list[str]:
    """The class names of the leaves, in order."""
    return [type(module).__name__ for module in network.modules() if not list(module.children())]

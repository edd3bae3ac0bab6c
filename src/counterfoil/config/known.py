"""Providers that need no address: their protocol, where their API begins, and the variable their key usually has.

Each row was taken from the provider's own documentation of its OpenAI-compatible (or native) endpoint. ``prices`` is
the catalogue's name when it differs. ``base_url`` includes the version, as the provider's own clients write it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from counterfoil.config.model import ProviderType


class KnownProvider(NamedTuple):
    """One row. ``variables`` are tried in order; empty for a server that takes no key."""

    type: ProviderType
    base_url: str
    variables: tuple[str, ...]
    prices: str | None = None


def _compatible(base_url: str, *variables: str, prices: str | None = None) -> KnownProvider:
    return KnownProvider("openai", base_url, variables, prices)


KNOWN_PROVIDERS: Final[dict[str, KnownProvider]] = {
    "openai": _compatible("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": KnownProvider("anthropic", "https://api.anthropic.com/v1", ("ANTHROPIC_API_KEY",)),
    "google": KnownProvider(
        "google", "https://generativelanguage.googleapis.com/v1beta", ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    ),
    "groq": _compatible("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "mistral": _compatible("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "deepseek": _compatible("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "openrouter": _compatible("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "x-ai": _compatible("https://api.x.ai/v1", "XAI_API_KEY"),
    "together": _compatible("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "fireworks": _compatible("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "cerebras": _compatible("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "perplexity": _compatible("https://api.perplexity.ai", "PERPLEXITY_API_KEY", "PPLX_API_KEY"),
    "cohere": _compatible("https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY", "CO_API_KEY"),
    "moonshotai": _compatible("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "zai": _compatible("https://api.z.ai/api/paas/v4", "ZAI_API_KEY"),
    "zhipuai": _compatible("https://open.bigmodel.cn/api/paas/v4", "ZHIPUAI_API_KEY"),
    "minimax": _compatible("https://api.minimax.io/v1", "MINIMAX_API_KEY"),
    "alibaba": _compatible("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "nvidia": _compatible("https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY"),
    "huggingface": _compatible("https://router.huggingface.co/v1", "HF_TOKEN"),
    "sambanova": _compatible("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY", prices="huggingface_sambanova"),
    "novita": _compatible("https://api.novita.ai/openai/v1", "NOVITA_API_KEY"),
    "nebius": _compatible("https://api.studio.nebius.com/v1", "NEBIUS_API_KEY", prices="huggingface_nebius"),
    "hyperbolic": _compatible("https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY", prices="huggingface_hyperbolic"),
    "deepinfra": _compatible("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"),
    "baseten": _compatible("https://inference.baseten.co/v1", "BASETEN_API_KEY"),
    "voyageai": _compatible("https://api.voyageai.com/v1", "VOYAGE_API_KEY"),
    "vercel": _compatible("https://ai-gateway.vercel.sh/v1", "AI_GATEWAY_API_KEY"),
    "ollama": _compatible("http://127.0.0.1:11434/v1"),
    "lmstudio": _compatible("http://127.0.0.1:1234/v1"),
    "vllm": _compatible("http://127.0.0.1:8000/v1"),
}

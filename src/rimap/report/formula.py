"""The formula of a signal model as plain text, for the methods text: models declare it in LaTeX."""

from __future__ import annotations

import re

from rimap.signals.base import SignalModel

#: LaTeX commands as characters.
_SYMBOLS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "theta": "θ", "lambda": "λ", "mu": "μ",
    "nu": "ν", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "psi": "ψ", "omega": "ω", "Delta": "Δ",
    "Sigma": "Σ", "sum": "Σ", "Omega": "Ω", "cdot": "·", "times": "×", "pm": "±", "approx": "≈", "le": "≤", "leq": "≤",
    "ge": "≥", "geq": "≥", "neq": "≠", "infty": "∞", "sqrt": "√", "prime": "′", "ldots": "…", "dots": "…",
    "quad": " ", "qquad": " ", "ll": "≪", "gg": "≫", "in": "∈", "propto": "∝", "to": "→", "partial": "∂",
}  # fmt: skip
_WORDS = ("sin", "cos", "tan", "exp", "log", "ln", "arctan", "max", "min", "tanh")
_SIMPLE = r"[\w.*′αβγδθλμνπρστφω]+"


def formula_of(model: SignalModel) -> str:
    r"""Return the formula of a model as text; "" if it declares none. Signed images have no modulus.

    >>> from rimap import InversionRecovery
    >>> formula_of(InversionRecovery(tau=[50, 400, 1100], signed=True))
    'S = A (1 − B e^(−TI/T1) + (B−1) e^(−TR/T1))'
    """
    latex = model.formula
    if model.is_signed:
        latex = latex.replace(r"\left|", "").replace(r"\right|", "")
    return as_text(latex)


def as_text(latex: str) -> str:
    r"""Return LaTeX as one line of text.

    >>> as_text(r"S = A\,\frac{\sin\alpha\,(1-E_1)}{1-E_1\cos\alpha},\; E_1 = e^{-TR/T_1}")
    'S = A (sin α (1−E1))/(1−E1 cos α), E1 = e^(−TR/T1)'
    >>> as_text(r"\sin(B_1\alpha)\,\frac{1}{T_1^*}")
    'sin(B1 α) 1/T1*'
    >>> as_text(r"\frac{S_1 S_2}{S_1^2 + S_2^2}")
    '(S1 S2)/(S1² + S2²)'
    >>> as_text(r"A\,e^{-TE/T_2^*}"), as_text(r"\frac{TE}{T_2}")
    ('A e^(−TE/T2*)', 'TE/T2')
    """
    text = re.sub(r"\\(?:left|right|big|Big|bigl|bigr|displaystyle|!)(?![A-Za-z])", "", latex)
    text = re.sub(r"\\(?:mathrm|text|operatorname|mathbf|mathit|rm)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\[,;:! ]|~", " ", text)
    text = text.replace("-", "−")
    for name, symbol in _SYMBOLS.items():
        text = re.sub(rf"\\{name}(?![A-Za-z])", symbol, text)
    for word in _WORDS:
        text = re.sub(rf"\\{word}(?![A-Za-z])\s*", rf" {word} ", text)
    previous = ""
    while text != previous:  # from the innermost braces outwards
        previous = text
        text = re.sub(r"_\{([^{}]*)\}|_(\w)", lambda m: m[1] or m[2], text)
        text = re.sub(r"\^\{\s*(?:\*|\\ast)\s*\}|\^\s*(?:\*|\\ast)", "*", text)
        text = re.sub(
            r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", lambda m: f"{_grouped(m[1])}/{_grouped(m[2])}", text
        )
        text = re.sub(r"\^\{([^{}]*)\}", lambda m: f"^{_grouped(m[1])}", text)
    text = text.replace("\\{", "{").replace("\\}", "}")
    text = re.sub(r"\{([^{}]*)\}", r"\1", text).replace("\\", "")
    text = re.sub(r"([A-Za-z0-9*)])\((?=1)", r"\1 (", text)
    text = re.sub(r"\^([23])(?!\d)", lambda m: "²³"[int(m[1]) - 2], text)
    text = re.sub(r"([0-9*])(?=[α-ω])", r"\1 ", text)
    text = re.sub(rf"({'|'.join(_WORDS)}) \(", r"\1(", text)
    return re.sub(r"\s+([,;)])", r"\1", re.sub(r"(\()\s+", r"\1", re.sub(r"\s+", " ", text))).strip()


def _grouped(text: str) -> str:
    """Return text in brackets unless it is one symbol."""
    text = text.strip()
    return text if re.fullmatch(_SIMPLE, text) else f"({text})"

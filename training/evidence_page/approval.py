"""The part of the evidence page that says who decided about the version."""

from html import escape

from training.domain.approval import Approvals, Ended

#: When the page was made before anybody decided.
_WAITING = "It waits for a person."


def section(version: int, known: Approvals) -> str:
    """HTML; empty when no approval was requested."""
    request = known.requests.get(version)
    if request is None:
        return ""
    until = f"Time to answer: until {request.until:%Y-%m-%d %H:%M} UTC."
    lines = [f"A person had to decide because {'; '.join(request.why)}. {until}"]
    answers = [*known.refused.get(version, ()), *([known.ended[version]] if version in known.ended else ())]
    lines += [_said(answer) for answer in answers] or [_WAITING]
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _said(answer: Ended) -> str:
    at = f" At {answer.at:%Y-%m-%d %H:%M} UTC." if answer.at else ""
    text = str(answer)
    return f"{text[0].upper()}{text[1:]}.{at}"

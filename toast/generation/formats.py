"""Formats of JSON schemas as regular expressions: what each standard allows, but for forms that nobody writes.

Shorter than the standards' own grammars, so that every text comes to an end: no fraction of a second has more than six
digits, no number of a duration more than four. All else is left to the engine, whose calendar has 29 days in every
February.
"""

HOUR = r"(?:[01][0-9]|2[0-3])"
YEAR = r"[1-9][0-9]{3}"
LEAP = r"(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)"
DATE = (
    rf"(?:{YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{LEAP}-02-29)"
)
TIME = rf"{HOUR}:[0-5][0-9]:[0-5][0-9](?:\.[0-9]{{1,6}})?(?:Z|[+-]{HOUR}:[0-5][0-9])"
N = r"[0-9]{1,4}"
DAYS = rf"(?:{N}Y(?:{N}M(?:{N}D)?)?|{N}M(?:{N}D)?|{N}D)"
CLOCK = rf"T(?:{N}H(?:{N}M(?:{N}S)?)?|{N}M(?:{N}S)?|{N}S)"
LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?"
NAME = r"[a-zA-Z0-9_+-]{1,32}"

FORMATS = {
    name: f"^(?:{pattern})$"
    for name, pattern in {
        "date-time": f"{DATE}T{TIME}",
        "date": DATE,
        "time": TIME,
        "duration": f"P(?:{DAYS}(?:{CLOCK})?|{CLOCK}|{N}W)",
        "email": rf"{NAME}(?:\.{NAME}){{0,2}}@{LABEL}(?:\.{LABEL}){{0,2}}\.[a-zA-Z]{{2,12}}",
        "hostname": rf"{LABEL}(?:\.{LABEL}){{0,4}}",
    }.items()
}

"""What is done again and again, without coverage: it takes twice as long under it, and shows no further line.

Coverage counts calls and returns: where it stops is where it has to go on.
"""

import sys
from contextlib import contextmanager
from functools import wraps
from itertools import count

FEW = 50  # of hypothesis's examples


@contextmanager
def unmeasured():
    """Nothing inside is measured."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield tracer
    finally:
        sys.settrace(tracer)


@contextmanager
def few_measured(hypothesis):
    """Of what a test of hypothesis's does its first examples are, and how they are made is not."""
    test, done = hypothesis.inner_test, count()
    with unmeasured() as tracer:

        @wraps(test)
        def run(*args, **kwargs):
            if next(done) >= FEW:
                return test(*args, **kwargs)
            sys.settrace(tracer)
            try:
                return test(*args, **kwargs)
            finally:
                sys.settrace(None)

        hypothesis.inner_test = run
        try:
            yield
        finally:
            hypothesis.inner_test = test

"""Jupyter's own test suite for kernels, with samples for `rlm-pyodide`; run by test_pyodide_jupyter.py."""

import unittest

import jupyter_kernel_test

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
CLASS = f"""
class P:
    def _repr_png_(self):
        import base64
        return base64.b64decode({PNG!r})
display(P())
"""


# ruff: noqa: RUF012  the suite takes its samples as attributes of the class


class Suite(jupyter_kernel_test.KernelTests):
    kernel_name = "rlm-pyodide"
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = [
        {"text": "zi", "matches": {"zip"}},
        {"text": "import statis", "matches": {"statistics"}},
    ]
    complete_code_samples = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n", "await f()"]
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2", "for i in a:"]
    invalid_code_samples = ["import = 7q", "def f(:"]
    code_generate_error = "raise ValueError('made')"
    code_execute_result = [{"code": "6*7", "result": "42"}, {"code": "[1, 2]", "result": "[1, 2]"}]
    code_display_data = [
        {
            "code": "from IPython.display import JSON, display; display(JSON({'a': 1}))",
            "mime": "application/json",
        },
        {"code": CLASS, "mime": "image/png"},
    ]
    code_page_something = "zip?"
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


if __name__ == "__main__":
    unittest.main()

"""jupyter_kernel_test against ``KERNEL``, an IPython of ours; prints how many tests it executed."""

import sys
import unittest

import jupyter_kernel_test

KERNEL = sys.argv[1]
MAGICS = KERNEL == "rlm"


class Conformance(jupyter_kernel_test.KernelTests):
    kernel_name = KERNEL
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = [{"text": "zi", "matches": {"zip"}}]
    complete_code_samples = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n"]
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2"]
    invalid_code_samples = ["import = 7q"]
    code_page_something = "zip?"
    code_generate_error = "raise ValueError('x')"
    code_execute_result = [{"code": "1+2+3", "result": "6"}]
    code_display_data = [
        {"code": "from IPython.display import HTML, display; display(HTML('<b>x</b>'))", "mime": "text/html"}
    ]
    code_history_pattern = "1?2*"
    # Not "range": IPython's own kernel calls the current session 0 there, too.
    supported_history_operations = ("tail", "search")
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


if MAGICS:
    Conformance.completion_samples.append({"text": "%rlm us", "matches": {"use"}})
    Conformance.complete_code_samples += ["%rlm Isn't it?", "%%rlm -q\nwhat?\n\n"]


class Welcome(jupyter_kernel_test.IopubWelcomeTests):
    kernel_name = KERNEL
    support_iopub_welcome = True


if __name__ == "__main__":
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    suite = unittest.TestSuite([load(Conformance), load(Welcome)])
    result = unittest.TextTestRunner().run(suite)
    # A part of a test, such as the history's "range", is no test.
    skipped = [test for test, _ in result.skipped if not hasattr(test, "test_case")]
    print(f"executed {result.testsRun - len(skipped)}, skipped {len(skipped)}")
    raise SystemExit(not result.wasSuccessful())

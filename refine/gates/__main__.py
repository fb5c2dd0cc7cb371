"""`python -m refine.gates < replies.jsonl`: one verdict per line, as `georefine check-replies` gives."""

import sys

from refine.gates import check_lines

if __name__ == "__main__":
    for answer in check_lines(sys.stdin):
        print(answer)

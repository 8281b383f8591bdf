"""The paper's tables: its systems trained and tested under one protocol, and printed beside the paper's own figures."""

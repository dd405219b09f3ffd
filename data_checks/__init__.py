"""Questions about rows: flags that pure functions compute, and the suites that judge them. No Prefect, no network."""

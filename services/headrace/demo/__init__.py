"""The flights of 2013 as a running application: every departure from New York becomes a prediction of how late it arrives."""

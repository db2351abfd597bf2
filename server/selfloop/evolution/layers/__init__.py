"""The layers of the judge, one file each, and what they share: profile, stage, and the programs inside the jail."""

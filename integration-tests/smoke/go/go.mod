module tally/smoke

go 1.26.0

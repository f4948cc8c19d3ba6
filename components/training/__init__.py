"""One iteration's update of the policy: objectives into optimiser steps, its state, and where it runs."""

"""Before anything is computed: experiments, the runs that they name, and what these will take."""

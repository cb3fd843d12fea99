"""Who is this? `reid-jax search --workdir=RUN --gallery=FOLDER --query IMAGE`.

Describes the images of a folder and those asked about with a run's network, prints the nearest of
each query and draws them. No identity labels are needed; if file names show identities and cameras,
they filter, and the picture shows which hits are right.
"""

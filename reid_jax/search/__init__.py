"""`reid-jax search --workdir=RUN --gallery=FOLDER --query IMAGE` finds images of a person.

Describes the images of a folder and the query images with a run's network, prints the nearest
images of each query and draws them. No identity labels are needed. If file names show identities
and cameras, these can be used as filters, and the picture shows which hits are right.
"""

# Runs every step on CPUs: the project's requirements, so that a pod starts without installing anything.
#   docker build --file infra/images/cpu.Dockerfile --tag wind:cpu .
FROM python:3.11.14-slim-bookworm

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /opt/wind
COPY requirements.txt .
# torch comes first, from PyTorch's index of CPU builds: the one on PyPI brings gigabytes of CUDA libraries.
# `-e .` is left out: a run's code comes with its code package, and an installed copy could only be stale.
RUN grep '^torch==' requirements.txt > torch.txt \
    && grep -v '^-e' requirements.txt > packages.txt \
    && pip install --index-url https://download.pytorch.org/whl/cpu --requirement torch.txt \
    && pip install --requirement packages.txt \
    && pip check

RUN useradd --create-home --uid 10001 wind
# Kubernetes can tell that a user is not root only by its number.
USER 10001:10001
# Metaflow makes a folder of its own in the working directory.
WORKDIR /home/wind
# Metaflow installs boto3 and requests with pip at the start of every pod unless METAFLOW_SKIP_INSTALL_DEPENDENCIES is
# set, and runs only as somebody with a name.
ENV HOME=/home/wind \
    HF_HOME=/home/wind/.cache/huggingface \
    METAFLOW_SKIP_INSTALL_DEPENDENCIES=1 \
    PYTHONUNBUFFERED=1 \
    USER=wind

# Runs every step on NVIDIA GPUs, or without one: vLLM's image and the packages that it lacks.
#   docker build --file infra/images/gpu.Dockerfile --tag wind:gpu .
FROM vllm/vllm-openai:v0.32.0

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PIP_BREAK_SYSTEM_PACKAGES=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /opt/wind
COPY requirements.txt .
# vLLM's image has its own torch, transformers, numpy and so on. The rest is installed, and bitsandbytes for the optimiser
# adamw_8bit. All that the image has is a constraint, so that pip fails rather than replace any of it; but for what is
# installed here, and boto3's two other parts.
RUN grep -vE '^-e|^#|^(numpy|pydantic|PyYAML|safetensors|torch|tqdm|transformers)==' requirements.txt > packages.txt \
    && echo 'bitsandbytes==0.50.2' >> packages.txt \
    && sed -E 's/^([^=]+)==.*/^\1==/' packages.txt > installed.txt \
    && python3 -m pip freeze | grep -E '^[A-Za-z0-9._-]+==' \
        | grep -viE --file installed.txt --regexp '^(botocore|s3transfer)==' > constraints.txt \
    && python3 -m pip install --constraint constraints.txt --requirement packages.txt
# Metaflow calls `python`.
RUN if ! command -v python; then ln -s "$(command -v python3)" /usr/local/bin/python; fi \
    && python -c 'import metaflow, requests, torch, transformers, vllm; \
        assert torch.version.cuda, "torch is not built for CUDA"'

RUN useradd --create-home --uid 10001 wind
# Kubernetes can tell that a user is not root only by its number.
USER 10001:10001
# Metaflow makes a folder of its own in the working directory.
WORKDIR /home/wind
# Metaflow installs boto3 and requests with pip at the start of every pod unless METAFLOW_SKIP_INSTALL_DEPENDENCIES is
# set, and runs only as somebody with a name. NVIDIA_VISIBLE_DEVICES=void: a step that asks for no GPU gets none, also on
# a node that has some; for the others Kubernetes' device plugin sets it.
ENV HOME=/home/wind \
    HF_HOME=/home/wind/.cache/huggingface \
    METAFLOW_SKIP_INSTALL_DEPENDENCIES=1 \
    NVIDIA_VISIBLE_DEVICES=void \
    PYTHONUNBUFFERED=1 \
    USER=wind \
    VLLM_NO_USAGE_STATS=1
# In place of vLLM's server.
ENTRYPOINT []
CMD ["bash"]

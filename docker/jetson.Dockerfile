# udvla_ros on a Jetson (JetPack 6), with its GPU. Not built or run by its authors: check the tag of the base image and
# its torch against your JetPack.
# docker build -f docker/jetson.Dockerfile -t udvla . && docker run --rm -it --runtime nvidia --network host udvla
FROM dustynv/ros:jazzy-ros-base-r36.4.0

RUN apt-get update && apt-get install -y --no-install-recommends make git python3-venv python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/udvla_ros
COPY . .
SHELL ["/bin/bash", "-c"]
# The image's own torch is built for its GPU: the environment sees it, and pip leaves it alone.
RUN source /opt/ros/jazzy/install/setup.bash && python3 -m venv --system-site-packages .venv \
    && . .venv/bin/activate && pip install -e '.[train]' && cd ros2_ws && python -m colcon build
RUN printf '%s\n' '#!/bin/bash' 'source /opt/ros/jazzy/install/setup.bash' '. /opt/udvla_ros/.venv/bin/activate' \
        'source /opt/udvla_ros/ros2_ws/install/setup.bash' 'exec "$@"' > /entrypoint && chmod +x /entrypoint
ENTRYPOINT ["/entrypoint"]
CMD ["bash"]

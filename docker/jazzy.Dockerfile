# udvla_ros on ROS 2 Jazzy, CPU. Not built or run by its authors.
# docker build -f docker/jazzy.Dockerfile -t udvla . && docker run --rm -it --network host udvla
FROM ros:jazzy-ros-base

RUN apt-get update && apt-get install -y --no-install-recommends \
        make git python3-venv python3-pip python3-colcon-common-extensions ros-jazzy-cv-bridge \
        libosmesa6 libegl1 libgl1-mesa-dri \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/udvla_ros
COPY . .
SHELL ["/bin/bash", "-c"]
RUN source /opt/ros/jazzy/setup.bash && make setup \
    && . .venv/bin/activate && cd ros2_ws && python -m colcon build
RUN printf '%s\n' '#!/bin/bash' 'source /opt/ros/jazzy/setup.bash' '. /opt/udvla_ros/.venv/bin/activate' \
        'source /opt/udvla_ros/ros2_ws/install/setup.bash' 'exec "$@"' > /entrypoint && chmod +x /entrypoint
ENTRYPOINT ["/entrypoint"]
CMD ["bash"]

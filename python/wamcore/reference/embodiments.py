"""What is known of each published robot: its cameras, the order of its state and action keys, its prompt."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Embodiment:
    views: tuple = ()  # camera names, in the order of composition
    layout: str = ""  # "wrist_on_top" or "quad"
    state_keys: tuple = ()  # in the order of the state vector
    action_keys: tuple = ()  # in the order of the action vector
    relative_keys: tuple = ()  # actions that are offsets from the state at the start of the block
    prompt: tuple = ()  # pieces of the text; the instruction goes between them


def multi_view(views):
    start = "A multi-view video shows that a robot "
    return start, f" The video is split into {views} The robot ", ""


QUAD_HEAD = multi_view(
    "four views: The top-left view shows the camera view from the robot's head, "
    "the top-right view shows the camera view from the right hand, "
    "the bottom-left view shows the camera view from the left hand, "
    "and the bottom-right view is a black screen (inactive view)."
)
QUAD_TOP = multi_view(
    "four views: The top-left view shows the top camera, the top-right view shows the right camera, "
    "the bottom-left view shows the left camera, and the bottom-right view is a black screen."
)
WRIST_ON_TOP = multi_view(
    "three views: The top view shows the camera view from the robot's wrist, "
    "the bottom-left view shows the camera view from the left exterior camera, "
    "and the bottom-right view shows the camera view from the right exterior camera. "
    "During training, one of the two bottom exterior views may be a black screen (dropped view)."
)
SINGLE_HUMAN = ("A single view video shows that a human ", "")

AGIBOT_STATE = (
    "left_arm_joint_position",
    "right_arm_joint_position",
    "left_effector_position",
    "right_effector_position",
    "head_position",
    "waist_position",
)
DROID_STATE = ("joint_position", "gripper_position")
YAM_STATE = ("left_joint_pos", "left_gripper_pos", "right_joint_pos", "right_gripper_pos")

EMBODIMENTS = {
    "oxe_droid": Embodiment(
        views=("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left"),
        layout="wrist_on_top",
        state_keys=DROID_STATE,
        action_keys=DROID_STATE,
        relative_keys=("joint_position",),
        prompt=WRIST_ON_TOP,
    ),
    "agibot": Embodiment(
        views=("top_head", "hand_left", "hand_right"),
        layout="quad",
        state_keys=AGIBOT_STATE,
        action_keys=(*AGIBOT_STATE, "robot_velocity"),
        relative_keys=AGIBOT_STATE,
        prompt=QUAD_HEAD,
    ),
    "yam": Embodiment(
        views=("top_camera-images-rgb", "left_camera-images-rgb", "right_camera-images-rgb"),
        layout="quad",
        state_keys=YAM_STATE,
        action_keys=YAM_STATE,
        relative_keys=YAM_STATE,
        prompt=QUAD_TOP,
    ),
    # only the prompts of these are published
    "xdof": Embodiment(prompt=QUAD_HEAD),
    "gr1_unified": Embodiment(prompt=SINGLE_HUMAN),
    "mecka_hands": Embodiment(prompt=SINGLE_HUMAN),
}

NEGATIVE_PROMPT = (
    "Vibrant colors, overexposed, static, blurry details, text, subtitles, style, artwork, painting, image, still, "
    "grayscale, dull, worst quality, low quality, JPEG artifacts, ugly, mutilated, extra fingers, bad hands, bad face, "
    "deformed, disfigured, mutated limbs, fused fingers, stagnant image, cluttered background, three legs, "
    "many people in the background, walking backwards."
)

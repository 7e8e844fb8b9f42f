"""Weights of every family: the demo's, and random ones where nothing trained can be had."""

import cv2
import numpy as np
import pytest

from serve_app.settings import PROJECT_ROOT

DEMO = PROJECT_ROOT / "model_repository" / "weights" / "demo-yolo11n.pt"


@pytest.fixture(scope="session")
def demo_weights():
    return DEMO


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory):
    """Weights of a family that nothing taught anything, with scores spread so that there is something to suppress."""

    def make(architecture):
        import torch
        from ultralytics import ASSETS, YOLO

        torch.manual_seed(5)
        model = YOLO(f"{architecture}.yaml", task="detect")
        head = model.model.model[-1]
        with torch.no_grad():
            model.model.train()
            for layer in model.model.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.momentum = 0.3
            pixels = cv2.resize(cv2.imread(str(ASSETS / "bus.jpg")), (320, 320))[None, :, :, ::-1]
            pictures = torch.from_numpy(np.concatenate((pixels, pixels[:, ::-1])).transpose(0, 3, 1, 2) / 255).float()
            for _ in range(20):  # else nothing passes through layers whose statistics are those of no picture
                model.model(pictures)
            model.model.eval()
            for branches in (head.cv3, getattr(head, "one2one_cv3", None) or []):
                for branch in branches:
                    branch[-1].weight.normal_(0, 0.03)
                    branch[-1].bias.fill_(-4.0)
        folder = tmp_path_factory.mktemp("weights")
        model.save(folder / f"{architecture}.pt")
        return folder / f"{architecture}.pt"

    return make

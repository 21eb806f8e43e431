"""The benchmark's systems in plain PyTorch, without Keras: what every speed is measured against.

The same networks, losses and updates as in keras_xreid, written as a PyTorch user would, in
channels_last memory. `tests/test_benchmark.py` copies weights from ours into these and compares
outputs and losses. Work differs in one place: here a discriminator's running statistics move in
every phase that calls it, in ours in its own only.
"""

import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def convolution(inputs, outputs, kernel=3, stride=1, groups=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


def conv_bn_relu(inputs, outputs, kernel=1, stride=1):
    return nn.Sequential(
        convolution(inputs, outputs, kernel, stride),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def projection(inputs, outputs, stride=1):
    """The shortcut of a residual block, projected where its shape differs."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


# --- re-identification networks ----------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, shortcut, *body):
        super().__init__()
        self.shortcut, self.body = shortcut, nn.Sequential(*body)

    def forward(self, x):
        shortcut = self.shortcut(x)
        y = self.body(x)
        y += shortcut
        return F.relu(y, inplace=True)


def bottleneck(inputs, width, stride):
    """ResNet-50's block; as in keras.applications, the first convolution has the stride."""
    return Residual(
        projection(inputs, 4 * width, stride),
        conv_bn_relu(inputs, width, 1, stride),
        conv_bn_relu(width, width, 3),
        convolution(width, 4 * width, 1),
        nn.BatchNorm2d(4 * width),
    )


def basic_block(inputs, width, stride):
    return Residual(
        projection(inputs, width, stride),
        conv_bn_relu(inputs, width, 3, stride),
        convolution(width, width, 3),
        nn.BatchNorm2d(width),
    )


def resnet(block, depths, widths, expansion):
    """A ResNet up to its last feature map; the last stage has stride 1."""
    layers = [conv_bn_relu(3, 64, 7, stride=2), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for depth, width, stride in zip(depths, widths, (1, 2, 2, 1), strict=True):
        for index in range(depth):
            layers.append(block(inputs, width, stride if index == 0 else 1))
            inputs = expansion * width
    return nn.Sequential(*layers)


class OmniScale(nn.Module):
    """OSNet's block: one to four light 3x3 convolutions side by side, weighed by one gate."""

    def __init__(self, inputs, outputs):
        super().__init__()
        middle = outputs // 4
        self.shortcut = projection(inputs, outputs)
        self.conv1 = conv_bn_relu(inputs, middle)
        self.streams = nn.ModuleList(
            nn.Sequential(*[self.light(middle) for _ in range(depth)]) for depth in (1, 2, 3, 4)
        )
        self.gate = nn.Sequential(
            nn.Linear(middle, middle // 16),
            nn.ReLU(inplace=True),
            nn.Linear(middle // 16, middle),
            nn.Sigmoid(),
        )
        self.conv3 = nn.Sequential(convolution(middle, outputs, 1), nn.BatchNorm2d(outputs))

    @staticmethod
    def light(width):
        return nn.Sequential(
            convolution(width, width, 1),
            convolution(width, width, 3, groups=width),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        shortcut = self.shortcut(x)
        x = self.conv1(x)
        gated = 0
        for stream in self.streams:
            y = stream(x)
            gated = gated + y * self.gate(y.mean((2, 3)))[:, :, None, None]
        y = self.conv3(gated)
        y += shortcut
        return F.relu(y, inplace=True)


def osnet(widths=(64, 256, 384, 512)):
    """OSNet up to its last feature map."""
    first, *stages = widths
    layers, inputs = [conv_bn_relu(3, first, 7, stride=2), nn.MaxPool2d(3, 2, 1)], first
    for number, outputs in enumerate(stages):
        layers += [OmniScale(inputs, outputs), OmniScale(outputs, outputs)]
        if number < 2:
            layers += [conv_bn_relu(outputs, outputs), nn.AvgPool2d(2)]
        inputs = outputs
    return nn.Sequential(*layers, conv_bn_relu(inputs, inputs))


class Inverted(nn.Module):
    """EfficientNet's block: wide inside, a convolution of each channel, narrow outside."""

    def __init__(self, inputs, outputs, kernel, stride, expansion):
        super().__init__()
        wide = inputs * expansion
        layers = lite_conv(inputs, wide) if expansion > 1 else []
        layers += lite_conv(wide, wide, kernel, stride, groups=wide)
        layers += lite_conv(wide, outputs)[:-1]
        self.adds, self.body = stride == 1 and inputs == outputs, nn.Sequential(*layers)

    def forward(self, x):
        y = self.body(x)
        if self.adds:
            y += x
        return y


def lite_conv(inputs, outputs, kernel=1, stride=1, groups=1):
    around = kernel - stride  # TensorFlow's "same": the odd line of zeros is below and right
    before, after = around // 2, around - around // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride, before, groups=groups, bias=False)
    zeros = []
    if before != after:
        zeros, conv.padding = [nn.ZeroPad2d((before, after, before, after))], (0, 0)
    return [*zeros, conv, nn.BatchNorm2d(outputs, eps=1e-3), nn.ReLU6(inplace=True)]


def lite0():
    """EfficientNet-Lite0 up to its last feature map; the sixth stage has stride 1."""
    layers, inputs = lite_conv(3, 32, 3, 2), 32
    for depth, kernel, stride, expansion, outputs in (
        (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112), (4, 5, 1, 6, 192), (1, 3, 1, 6, 320),
    ):  # fmt: skip
        for index in range(depth):
            layers.append(Inverted(inputs, outputs, kernel, 1 if index else stride, expansion))
            inputs = outputs
    return nn.Sequential(*layers, *lite_conv(inputs, 1280))


class ReID(nn.Module):
    """From images in [0, 1] to the embedding and the logits of the people trained on."""

    def __init__(self, backbone, people=401):
        super().__init__()
        self.fc = nn.Identity()
        if backbone == "resnet50":
            self.maps, features = resnet(bottleneck, (3, 4, 6, 3), (64, 128, 256, 512), 4), 2048
        elif backbone == "resnet_tiny":
            self.maps, features = resnet(basic_block, (2, 2, 2, 2), (64, 96, 160, 256), 1), 256
        elif backbone == "efficientnet_lite0":
            self.maps, features = lite0(), 1280
        else:
            width = {"osnet_x1_0": 1.0, "osnet_x0_25": 0.25}[backbone]
            widths = [int(width * w) for w in (64, 256, 384, 512)]
            self.maps, features = osnet(widths), 512
            self.fc = nn.Sequential(
                nn.Linear(widths[-1], 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True)
            )
        self.classifier = nn.Linear(features, people)
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        if backbone == "efficientnet_lite0":
            mean, std = (127 / 255,) * 3, (128 / 255,) * 3
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image):
        x = self.maps((image - self.mean) / self.std)
        x = self.fc(x.mean((2, 3)))
        return x, self.classifier(x)


# --- INTACT's other parts ----------------------------------------------------------------------


class GeneratorBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x):
        y = self.conv2(F.relu(self.conv1(x), inplace=True))
        return y + self.shortcut(x)


class Generator(nn.Module):
    def __init__(self, widths=(16, 24, 32, 48)):
        super().__init__()
        self.first = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down, self.up, self.enlarge = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        inputs = widths[0]
        for width in widths:
            self.down.append(
                nn.Sequential(GeneratorBlock(inputs, width), GeneratorBlock(width, width))
            )
            inputs = width
        for width in reversed(widths):
            self.up.append(
                nn.Sequential(GeneratorBlock(inputs, width), GeneratorBlock(width, width))
            )
            self.enlarge.append(nn.Conv2d(width, 4 * width, 3, padding=1))
            inputs = width
        self.last = nn.Conv2d(inputs, 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def forward(self, image):
        x = self.first(2 * image - 1)
        skips = []
        for blocks in self.down:
            x = blocks(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        for blocks, enlarge in zip(self.up, self.enlarge, strict=True):
            x = F.pixel_shuffle(enlarge(blocks(x)), 2) + skips.pop()
        return image + self.last(F.relu(x, inplace=True))


class Discriminator(nn.Module):
    """Keras's "same" pads a strided convolution at the other edge: the same work, mirrored."""

    def __init__(self, width=16, features=1024):
        super().__init__()
        layers, inputs = [], 3
        for index in range(8):
            outputs = width * 2 ** (index // 2)
            layers.append(nn.Conv2d(inputs, outputs, 3, 1 + index % 2, padding=1, bias=index == 0))
            if index:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            inputs = outputs
        self.maps = nn.Sequential(*layers)
        self.dense, self.logit = nn.Linear(inputs, features), nn.Linear(features, 1)

    def forward(self, image):
        fd = F.leaky_relu(self.dense(self.maps(2 * image - 1).mean((2, 3))), 0.2)
        return fd, self.logit(fd)


def three_layers(inputs, outputs, hidden=512):
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True),
        nn.Linear(hidden, outputs), nn.BatchNorm1d(outputs),
    )  # fmt: skip


class Association(nn.Module):
    """phi, an encoder and a decoder from fc to fd, and its bridge sigma."""

    def __init__(self, fc=256, fd=1024, latent=200):
        super().__init__()
        self.encoder = three_layers(fc, latent)
        self.decoder = three_layers(latent, fd)
        self.sigma = three_layers(fd, latent)


# --- train steps -------------------------------------------------------------------------------


def to_device(images):
    """uint8 (n, h, w, 3) to float (n, 3, h, w) in [0, 1], channels last in memory."""
    images = torch.from_numpy(images).to(DEVICE, non_blocking=True)
    return images.permute(0, 3, 1, 2).float().div(255)


def people(labels):
    return torch.from_numpy(labels).to(DEVICE, non_blocking=True).long()


def update(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def adam(network, rate):
    return torch.optim.Adam(network.parameters(), rate, eps=1e-7)  # Keras's epsilon


class Baseline:
    """A re-identification network trained with cross-entropy."""

    def __init__(self, backbone):
        self.network = ReID(backbone).to(DEVICE, memory_format=torch.channels_last)
        self.networks = [self.network]
        self.optimizer = adam(self.network, 1e-4)

    def train_step(self, batch):
        self.network.train()
        _, logits = self.network(to_device(batch["image"]))
        loss = F.cross_entropy(logits, people(batch["person"]))
        update(self.optimizer, loss)
        return {"id": loss.detach()}

    def embed(self, images):
        self.network.eval()
        return self.network(images)[0]


class INTACT:
    """INTACT of the preset "tiny": D, then phi and sigma, then G; C is frozen."""

    def __init__(self):
        self.reid = ReID("resnet_tiny").requires_grad_(False).eval()
        self.generator, self.discriminator = Generator(), Discriminator()
        self.association = Association()
        self.networks = [self.reid, self.generator, self.discriminator, self.association]
        for network in self.networks:
            network.to(DEVICE, memory_format=torch.channels_last)
        self.optimizer_g = adam(self.generator, 1e-4)
        self.optimizer_d = adam(self.discriminator, 1e-4)
        self.optimizer_a = adam(self.association, 1e-3)

    def train_step(self, batch):
        hr, lr, person = to_device(batch["hr"]), to_device(batch["lr"]), people(batch["person"])
        phi = self.association
        with torch.no_grad():
            recovered = self.generator(lr)
            fc, _ = self.reid(hr)

        # D tells HR images from recovered ones.
        _, real = self.discriminator(hr)
        _, fake = self.discriminator(recovered)
        loss_d = F.softplus(-real).mean() + F.softplus(fake).mean()
        update(self.optimizer_d, loss_d)

        # phi and sigma learn how fc and fd of HR images belong together.
        with torch.no_grad():
            fd, _ = self.discriminator(hr)
        latent = phi.encoder(fc)
        loss_phi = F.mse_loss(phi.decoder(latent), fd)
        loss_bridge = F.mse_loss(phi.sigma(fd), latent)
        update(self.optimizer_a, loss_phi + loss_bridge)

        # G recovers images that C knows, D believes and phi finds consistent.
        self.discriminator.requires_grad_(False)
        phi.requires_grad_(False)
        recovered = self.generator(lr)
        fc, logits = self.reid(recovered)
        fd, fake = self.discriminator(recovered)
        loss_mse = 16.0**2 * F.mse_loss(recovered, hr)
        loss_id = 0.3 * F.cross_entropy(logits, person)
        loss_gan = 0.1 * F.softplus(-fake).mean()
        loss_association = F.mse_loss(phi.decoder(phi.encoder(fc)), fd)
        update(self.optimizer_g, loss_mse + loss_id + loss_gan + loss_association)
        self.discriminator.requires_grad_(True)
        phi.requires_grad_(True)
        losses = {
            "discriminator": loss_d, "phi": loss_phi, "bridge": loss_bridge, "mse": loss_mse,
            "id": loss_id, "gan": loss_gan, "association": loss_association,
        }  # fmt: skip
        return {name: loss.detach() for name, loss in losses.items()}

    def embed(self, images):
        return self.reid(self.generator(images).clamp(0, 1))[0]


def embed(system, images, batch_size):
    """Embeddings of uint8 images as a NumPy array."""
    features = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            part = to_device(images[start : start + batch_size])
            features.append(system.embed(part).float().cpu().numpy())
    return np.concatenate(features)


# --- input -------------------------------------------------------------------------------------


class People(torch.utils.data.Dataset):
    """Decodes a file and makes it an image, or a pair of images, with Pillow."""

    def __init__(self, records, image_size, rates, pairs):
        self.records, self.rates, self.pairs = records, rates, pairs
        self.height, self.width = image_size
        self.labels = {p: i for i, p in enumerate(sorted({r.person for r in records}))}

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        record = self.records[index]
        image = Image.open(record.path).convert("RGB")
        width = random.randint(-(-image.width * 7 // 8), image.width)
        height = random.randint(-(-image.height * 7 // 8), image.height)
        left = random.randint(0, image.width - width)
        top = random.randint(0, image.height - height)
        image = image.crop((left, top, left + width, top + height))
        rate, mirrored = random.choice(self.rates), random.random() < 0.5
        item = {"person": self.labels[record.person], "rate": rate}
        if self.pairs:
            item["hr"] = self.finish(image, mirrored)
        small = (max(1, round(width / rate)), max(1, round(height / rate)))
        low = image.resize(small, Image.Resampling.BOX)
        item["lr" if self.pairs else "image"] = self.finish(low, mirrored)
        return item

    def finish(self, image, mirrored):
        image = image.resize((self.width, self.height), Image.Resampling.BILINEAR)
        if mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.array(image)


def loader(records, image_size, rates, pairs, batch_size, workers):
    return torch.utils.data.DataLoader(
        People(records, image_size, rates, pairs), batch_size, shuffle=True, drop_last=True,
        num_workers=workers, persistent_workers=workers > 0,
    )  # fmt: skip

"""`make compose-test`: docker-compose.scale.yml brought up whole, in namespaces of its own, and taken down again."""

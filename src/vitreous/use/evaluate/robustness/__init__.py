"""Model, images -> how its accuracy changes with the photo: noise, blur, weather, light, position, resizing."""

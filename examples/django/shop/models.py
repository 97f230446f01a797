from django.db import models


class Order(models.Model):
    customer = models.EmailField()
    total = models.IntegerField(null=True, help_text="In cents; null until it has been computed.")
    receipt_sent_at = models.DateTimeField(null=True)

    def __str__(self):
        return f"order {self.pk} of {self.customer}"


class Line(models.Model):
    order = models.ForeignKey(Order, related_name="lines", on_delete=models.CASCADE)
    product = models.CharField(max_length=80)
    price = models.IntegerField(help_text="In cents.")

    def __str__(self):
        return self.product
